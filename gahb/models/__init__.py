"""Bias-free blind denoisers. `architectures` describes them without torch; the other modules build them."""
