"""What one manifest says: pure, one module for each family of manifests.

The texts are a stranger's: one that cannot be read is as good as absent.
"""
