"""Results → bytes. Pure."""
