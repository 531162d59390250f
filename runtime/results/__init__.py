"""What programs want to know of a class map: how much there is of a class, where, and since when."""
