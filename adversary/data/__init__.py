"""Real data sets, fetched once through package managers and kept outside the tree."""
