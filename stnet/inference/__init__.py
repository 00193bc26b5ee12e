"""Prediction: Predictor, its results, their files, features and explanations."""

from stnet import runtime

runtime.prepare()  # before Paddle is imported
