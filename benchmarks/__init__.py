"""One file per number the README quotes; results as JSON in results/."""
