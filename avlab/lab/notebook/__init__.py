"""What a notebook shows: the view, its sound, the panel, live plots. The pages' own code lies beside them."""
