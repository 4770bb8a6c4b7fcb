"""One run at each point of a grid: what varies, where it is done, what is kept of it."""
