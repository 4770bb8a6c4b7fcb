"""What the package itself reads at run time: recorded work times and frame sizes. README.md here says how they came."""
