"""Text -> calibrated probabilities of the five behaviours.

Data flows  turn -> `features` (hashed n-grams) -> `linear` (factor and behaviour heads, calibration) -> judgements.
`training` and `evaluation` make and measure the weights kept in `weights/`; only they need scikit-learn.
"""
