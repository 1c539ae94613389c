//! The integration tests: one binary, real sockets on 127.0.0.1, scripted peers.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod access; // who is let in, and what is answered to the others
mod answers; // what issuers answer, and refusals of a token
mod assertions; // signed assertions and exchanged tokens, and their files
mod blame; // whose fault it is, in the answer and in the log
mod chains; // several providers on one chain of refresh tokens, and files under other names
mod check; // `evertoken check`: what it finds, and what it says it tried
mod circles; // which files use each other
mod cli; // the real binary: exit codes, messages, signals
mod coded; // request bodies that hide their model
mod configuration; // what people write into providers.yaml, and what the binary does with it
mod connections; // connections to providers that end, stall or bring what nobody asked for
mod credential_files; // credentials in files that other programs and people keep
mod credentials; // where credentials go, and where those of clients do not
mod cuts; // peers that fail at every byte of what they send
mod discover; // `evertoken login --discover`
mod discovery; // endpoints that an issuer names
mod egress; // proxies and roots: of settings, the environment, a provider
mod environment; // variables from a file: for the shell that has not those of the service
mod faults; // peers that break, stall, answer early or send garbage
mod forward; // what crosses, both ways, and every limit
mod handed; // sockets of a service manager, and restarts with them
mod hostile; // the cases of tests/data/hostile
mod hosts; // a token store that is not there
mod ingress; // the server under a service of our own
mod kept; // our own sockets, which a service manager keeps
mod keys; // keys of clients: by their hash, with certain models, with limits
mod listen;
mod listeners; // in the status, the metrics and on the page
mod login; // `evertoken login`, and a running evertoken that takes it up
mod logout; // `evertoken logout`: revocations, and instances that drop their tokens
mod logs; // a line a request, JSON, --quiet, the journal
mod manners; // every kind of issuer of sandbox/manners, through the life of a token
mod models; // the list of models of several providers
mod mtls; // client certificates
mod origins; // web pages that may call
mod overload; // more connections than slots, and clients of other protocols
mod own_tls; // TLS for clients
mod own_tls_commands; // its files, and the commands that ask over it
mod pages; // the page for people, its events, and `evertoken status`
mod parted; // tokens that must not meet, whoever takes a name, a file or a disk
mod places; // state files under other names, that can't be read, and of two processes on one folder
mod properties; // what holds for any bytes from outside
mod quota; // what is left before a refusal: over restarts, reloads and accounts
mod redirects; // redirects of providers lead back to them
mod reference; // docs/reference.md beside the program
mod refresh; // tokens: log lines, rotation, restarts, 401
mod refusals; // refusals of providers: the next one, for how long, for which model
mod reload; // another configuration, with nothing dropped
mod reload_command; // `evertoken reload`: a file with mistakes does not reach the one that runs
mod restart; // the new start after a panic
mod routing; // which provider gets a request
mod sandbox; // against the sandbox and its scripted faults
mod scope; // what a refresh asks for after a login
mod secrets; // no secret in any output at trace level
mod several; // failover, cooldown, routes, credentials that others keep
mod shutdown; // draining
mod simulate; // 256 seeds of the token machine in virtual time
mod simulate_assertions; // the same for a grant without a refresh token
mod simulate_chain; // a whole proxy through orders, reloads, restarts and disks that fail
mod simulate_hosts; // several hosts on one chain, in virtual time
#[cfg(feature = "slow-tests")]
mod slow; // floods, disks, clocks and browsers, against the real binary
mod sticky; // conversations stay at their account
mod stream; // each event arrives before the next is sent
mod supervisor; // what systemd is told
mod support; // what they share
mod tidy; // the rules of the house
mod tls; // own roots, and the same over TLS
mod tls_in_tls; // providers and issuers behind a proxy that is reached over TLS
mod token_command; // the token of a real program, and programs that misbehave
mod token_page; // the page that hands a token out
mod token_request; // endpoints that are no OAuth
mod tools; // `evertoken token` and `evertoken exec`
mod usage; // the tokens of answers, counted and kept
mod websocket; // WebSockets: their handshake, both directions, and every end
mod yaml; // mistakes in the YAML itself
