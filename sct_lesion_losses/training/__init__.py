"""The network, its training and its export; with `losses` the only place that imports Keras."""
