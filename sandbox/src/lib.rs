//! A local OAuth issuer and model provider to try and test evertoken against.
