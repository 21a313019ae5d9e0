"""The parts of `experiments.gpu_study`, each a process of its own."""
