//! What a host needs before its first pod.
