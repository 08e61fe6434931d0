"""Models: what trained weights are of, as plain values; their cards; what every training has in common."""
