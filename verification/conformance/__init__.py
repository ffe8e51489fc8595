"""What any estimator must satisfy."""
