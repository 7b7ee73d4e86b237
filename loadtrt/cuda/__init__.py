"""The only code that calls CUDA. Everything is imported lazily: a machine without CUDA never pays for it."""
