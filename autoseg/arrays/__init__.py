"""Pure functions on numpy arrays: arrays in, arrays out. Images are (channel, z, y, x) or (channel, y, x); labels lack the channel axis."""
