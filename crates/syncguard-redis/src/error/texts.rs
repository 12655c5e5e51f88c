//! The errors that come as text, and what each means.

use syncguard_core::ErrorCode;

use After::{Keep, Replace};
use ErrorCode::{AuthFailed, Internal, InvalidArgument, RateLimited, ServiceUnavailable};

/// The reason of a connection that ended and for which fred gives none.
pub(crate) const ENDED: &str = "The connection ended.";

/// The reason of a call outside a runtime, in which fred would panic.
pub(crate) const NO_RUNTIME: &str = "There is no tokio runtime.";

/// What happens to a connection after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The connection stays in use: the error is about the request alone.
    Keep,
    /// The connection is replaced before the next command, and the topology is asked for again.
    Replace,
}

/// Errors that come as text, by the start of the text: those of the server in its own spelling,
/// those of our scripts, and the few of fred that have no kind of their own. They go before the
/// kinds. A leading `ERR` is left out.
///
/// Only what says [`Keep`] leaves a connection in use. Among the others are those of a server that
/// was demoted or cut off (`READONLY`, `NOREPLICAS`): another server may be the master now.
#[rustfmt::skip] // A table: one row a line.
pub(super) const TEXTS: &[(&str, ErrorCode, After, &str)] = &[
    ("NOAUTH", AuthFailed, Replace, "the server requires a password: add it to the URL"),
    ("WRONGPASS", AuthFailed, Replace, "the user name or the password is wrong, or the user is disabled"),
    ("NOPERM", AuthFailed, Keep, "a permission is missing"),
    ("The user executing the script can't run", AuthFailed, Keep, "a permission is missing: let the user run all commands that the documentation of syncguard-redis lists"),
    ("The user executing the script can't access", AuthFailed, Keep, "a permission is missing: let the user access all keys with the prefix of the locks"),
    ("ACL failure in script:", AuthFailed, Keep, "a permission is missing"),
    ("DENIED", AuthFailed, Replace, "the server accepts connections from its own host only: set a password or turn its protected mode off"),
    ("AUTH <password> called without any password configured", AuthFailed, Replace, "the server has no password: remove it from the URL"),
    ("Client sent AUTH, but no password is set", AuthFailed, Replace, "the server has no password: remove it from the URL"),
    ("unknown command", InvalidArgument, Keep, "the server or a proxy before it does not allow a command"),
    ("Unknown Redis command called from", InvalidArgument, Keep, "the server does not allow a command that the scripts of locks need"),
    ("Unknown command called from", InvalidArgument, Keep, "the server does not allow a command that the scripts of locks need"),
    ("This Redis command is not allowed from", InvalidArgument, Keep, "the server does not allow a command that the scripts of locks need"),
    ("Error compiling script", InvalidArgument, Keep, "the server cannot run the scripts of locks: it must be Redis 6 or later, or compatible with it"),
    ("DB index is out of range", InvalidArgument, Replace, "the server has no database with the number in the URL"),
    ("invalid DB index", InvalidArgument, Replace, "the server has no database with the number in the URL"),
    ("SELECT is not allowed in cluster mode", InvalidArgument, Replace, "a cluster has database 0 only: remove the database from the URL"),
    ("This instance has cluster support disabled", InvalidArgument, Replace, "the server is no cluster: use a URL that begins with redis://"),
    ("NOPROTO", InvalidArgument, Replace, "the server does not speak RESP3: configure the client for RESP2"),
    ("LOADING", ServiceUnavailable, Replace, "the server is loading its data"),
    ("READONLY", ServiceUnavailable, Replace, "the server is a read-only replica"),
    ("MASTERDOWN", ServiceUnavailable, Replace, "the server is a replica that has lost its master"),
    ("NOREPLICAS", ServiceUnavailable, Replace, "the server has too few replicas to take writes"),
    ("MISCONF", ServiceUnavailable, Replace, "the server cannot persist its data, so it takes no writes: check its disk"),
    ("BUSY", ServiceUnavailable, Keep, "the server is busy with a script"),
    ("UNBLOCKED", ServiceUnavailable, Replace, "the server interrupted the command, because its role changed"),
    ("CLUSTERDOWN", ServiceUnavailable, Replace, "the cluster is down"),
    ("TRYAGAIN", ServiceUnavailable, Keep, "the cluster is moving these keys"),
    ("Too many redirections.", ServiceUnavailable, Keep, "the cluster is moving these keys"),
    ("MOVED", ServiceUnavailable, Replace, "the cluster has moved these keys"),
    ("ASK", ServiceUnavailable, Replace, "the cluster is moving these keys"),
    ("Script attempted to access a non local key", ServiceUnavailable, Replace, "the cluster is moving these keys"),
    ("Script attempted to execute a command while the cluster is down", ServiceUnavailable, Replace, "the cluster is down"),
    ("Script attempted to execute a write command while the cluster is down", ServiceUnavailable, Replace, "the cluster is down"),
    ("Too many failed write attempts.", ServiceUnavailable, Replace, "the connection was lost"),
    ("Failed to route command.", ServiceUnavailable, Replace, "the connection was lost"),
    ("Missing expected connection.", ServiceUnavailable, Replace, "the connection was lost"),
    (ENDED, ServiceUnavailable, Replace, "the connection was lost"),
    ("channel closed", ServiceUnavailable, Replace, "the connection was lost, or replaced because it no longer answered"),
    ("Failed to send command to router.", ServiceUnavailable, Replace, "the connection was lost"),
    ("Client is not initialized.", ServiceUnavailable, Replace, "the connection was lost"),
    ("Missing primary address in response from sentinel node.", InvalidArgument, Replace, "the sentinels know no master with this name: check sentinelServiceName"),
    ("Failed to connect to all sentinel nodes.", ServiceUnavailable, Replace, "no sentinel accepts a connection with these credentials"),
    (NO_RUNTIME, InvalidArgument, Keep, "there is no tokio runtime: call this from inside one"),
    ("OOM", RateLimited, Keep, "the server is out of memory for writes: raise its maxmemory"),
    ("max number of clients", RateLimited, Replace, "the server has too many connections: raise its maxclients"),
    ("CROSSSLOT", InvalidArgument, Keep, "the server is a cluster: use a URL that begins with redis-cluster:// and a key prefix with a hash tag"),
    ("NOSCRIPT", Internal, Keep, "the server forgot a script that it was just sent"),
    ("WRONGTYPE", Internal, Keep, "a key of this lock holds a value of another type: check what else uses the prefix"),
    ("value is not an integer or out of range", Internal, Keep, "the fence counter of this key is no number: check what else uses the prefix"),
    ("SGRECORD", Internal, Keep, "the value under the lock key is no lock record: check what else uses the prefix"),
    ("SGINDEX", Internal, Keep, "the value under the id key does not name this lock: check what else uses the prefix"),
    ("SGFENCE", Internal, Keep, "the fence counter of this key is used up, or no counter"),
];

/// TLS failures that no retry cures, by what rustls reports. fred reports them as failures of the
/// connection.
#[rustfmt::skip] // A table: one row a line.
pub(super) const TLS: &[(&str, &str)] = &[
    ("InvalidCertificate(", "the server's certificate cannot be verified: install the root of its certificate authority on this system, and connect by a name that the certificate has"),
    ("AlertReceived(", "the server refused the TLS handshake: check whether it requires a client certificate, and which versions of TLS it supports"),
    ("InvalidMessage(InvalidContentType)", "the server does not speak TLS on this port: use its TLS port, or a URL that begins with redis://"),
    ("InvalidDnsNameError", "the host in the URL is no name or address that a certificate can have"),
];
