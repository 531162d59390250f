"""One script for each claim about speed; each measures it against the alternative and exits with 1 where it fails."""
