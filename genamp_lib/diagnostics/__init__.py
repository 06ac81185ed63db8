"""Paper B's weights: logits in; AUC and slices out (numpy and scipy only)."""
