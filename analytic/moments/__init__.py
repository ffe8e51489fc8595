"""Exact mean and covariance of the known estimators; merged trajectories and batches."""
