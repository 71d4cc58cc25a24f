"""The four engines: LOAD, MATMUL, NORM and STORE."""
