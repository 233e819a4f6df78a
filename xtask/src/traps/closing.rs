//! The end of a connection: on both sides, and in conntrack.

use std::{net::SocketAddr, thread::sleep, time::Duration};

use anyhow::Context as _;

use super::{
    bed::Bed,
    conversation::{Conversation, client},
    expect,
    gauges::{Gauges, begun_at, conntrack, sockets},
    matrix::Kind,
    outcome::{Check, Miss, ensure},
    server::Answer,
};

/// After this time nothing may be left.
pub(super) const LINGERS: Duration = Duration::from_millis(400);

/// A connection that was closed.
pub(super) struct Ended {
    kind: Kind,
    /// Where it began.
    origin: SocketAddr,
    /// The server, and what it saw.
    answer: Answer,
}

/// Closes a connection from both ends.
pub(super) fn end(bed: &Bed, mut conversation: Conversation) -> Result<Ended, Miss> {
    // Far beyond the window that conntrack saw, where this is promoted.
    (0..200).try_for_each(|_| conversation.exchange_bytes(bed, 40_000))?;
    let answer = conversation.last.clone().context("the server never answered")?;
    let origin = conversation.origins(bed)?.first().context("there is no socket")?.0;
    let before = Gauges::read(bed)?;
    conversation.close()?;
    // The last ACK.
    sleep(Duration::from_millis(5));
    expect::nothing_invalid(Gauges::read(bed)?.since(before))?;
    Ok(Ended { kind: conversation.kind, origin, answer })
}

/// Whether no socket is left, and conntrack knows that the connection is over.
pub(super) fn nothing_left(bed: &Bed, ended: &Ended) -> Check {
    let Ended { kind, origin, answer } = ended;
    let ends = [(client(*kind), origin.port()), (answer.server.as_str(), answer.client.port())];
    for (name, port) in ends {
        let left = sockets(bed.netns(name), port)?;
        ensure(left.is_empty(), "no socket of a closed connection", format!("in {name}, in states {left:?}"))?;
    }
    for node in &bed.lab.nodes {
        let table = conntrack(node, "tcp", bed.setting.ipv6)?;
        let lives = begun_at(&table, *origin).into_iter().find(|entry| entry.contains("ESTABLISHED"));
        ensure(
            lives.is_none(),
            "that conntrack saw the end",
            format!("on {}: {}", node.name, lives.unwrap_or_default()),
        )?;
    }
    Ok(())
}
