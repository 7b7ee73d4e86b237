"""When requests are due and what they carry. Pure: no engine, no clock, no event loop."""
