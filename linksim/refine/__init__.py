"""Second stages: what a base station can do with a scheme's images to make them look natural (KDD paper, section V)."""
