"""What kernels/check_gpu.py runs."""
