//! Tables and the simulation of the lifecycle.
