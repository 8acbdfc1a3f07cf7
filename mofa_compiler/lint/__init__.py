"""`mofa lint`: rules on a network, and what they found, for people and for CI."""
