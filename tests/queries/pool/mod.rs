//! Questions about kernel pool on kernels written down here, and every way in which one can disappoint.

mod block;
mod find;
mod stacks;
mod used;
