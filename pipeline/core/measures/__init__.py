"""What is measured of a replica batch, each against the exact float64 path; a file per measure."""
