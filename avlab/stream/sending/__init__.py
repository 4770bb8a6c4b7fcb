"""A clip on its way out: read ahead by feeds, paced, and adapted to what receivers report."""
