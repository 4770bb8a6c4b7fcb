"""What people touch: views, panels, plots, files."""
