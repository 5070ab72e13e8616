//! A kernel that ends by a fault of its own begins again in the same domain, and goes on.
pub mod area;
pub mod words;
