"""The command line. Reads argv and environment; everything else is library calls."""
