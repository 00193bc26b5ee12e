"""Prediction: Predictor, its results, their files, features and explanations."""
