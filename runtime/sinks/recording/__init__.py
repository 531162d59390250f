"""Recording for months: segments on a disk that fills, of sources that come and go."""
