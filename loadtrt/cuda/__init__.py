"""The only code that calls CUDA. Its modules import the bindings on first use, so that no machine needs CUDA."""
