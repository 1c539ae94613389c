//! The YAML as written: values with the place each stands at, and unknown keys.
