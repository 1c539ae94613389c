//! From the YAML and the environment to a checked `Config`, or the full list of problems.
