//! Which socket of a shared port the kernel gives a datagram to, by its connection id, and which a connection.
//!
//! The sockets that share a port (SO_REUSEPORT) are an array to the kernel: a new one goes to the end, and the last one takes the
//! place of one that is closed (net/core/sock_reuseport.c). A process that joins the port of one that ends adds, behind its own
//! sockets, as many that nobody reads: whichever order the other's are closed in, those fill their places, and its own stay where
//! they are.

use std::{
    io,
    net::UdpSocket,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
};

/// The sockets of one process among those of a UDP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The place of the first that is read.
    pub first: u16,
    /// How many are read.
    pub workers: u8,
    /// All that the port has once the process before has ended.
    pub sockets: u16,
    /// What the second byte of this process' connection ids is, modulo two: the other one's are of the process before.
    pub generation: u8,
}

/// Has the kernel choose among the sockets of a port.
#[derive(Debug)]
pub struct Steering {
    own: Share,
    /// A second handle of one of them.
    socket: UdpSocket,
    /// Those that keep the places of the process before.
    _placeholders: Vec<UdpSocket>,
    /// Told to this process' workers.
    alone: Arc<AtomicBool>,
}

impl Share {
    /// More sockets than that are not worth it: after so many processes in a row the next waits for the end of the one before.
    const MOST: u16 = 2048;

    /// Of a process that has the port to itself.
    pub(crate) fn alone(workers: u8) -> Self {
        Self { first: 0, workers, sockets: workers.into(), generation: 0 }
    }

    /// Of one that joins the port of a process that is about to end.
    pub(crate) fn after(before: Self, workers: u8) -> Option<Self> {
        let sockets = before.sockets.checked_add(workers.into()).filter(|sockets| *sockets <= Self::MOST)?;
        Some(Self { first: before.sockets, workers, sockets, generation: before.generation ^ 1 })
    }

    /// Whether a process of so many workers may join before this one has ended.
    pub fn has_room_for(self, workers: u8) -> bool {
        Self::after(self, workers).is_some()
    }

    /// How many places the process before leaves.
    pub(crate) fn places(self) -> u16 {
        self.first
    }
}

impl Steering {
    /// Steers to the sockets of `own`, and what is for connections of the process `before` to its.
    pub(crate) fn begin(
        own: Share,
        before: Option<Share>,
        socket: UdpSocket,
        placeholders: Vec<UdpSocket>,
        alone: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        match before {
            Some(before) => attach(&socket, &mut beside(own, before))?,
            None => attach(&socket, &mut to_own(own))?,
        }
        Ok(Self { own, socket, _placeholders: placeholders, alone })
    }

    /// This process' part of the port.
    pub fn share(&self) -> Share {
        self.own
    }

    /// The process before has ended: whatever comes is for this one.
    pub fn settle(&self) -> io::Result<()> {
        self.alone.store(true, Ordering::Relaxed);
        attach(&self.socket, &mut to_own(self.own))
    }

    /// Another process may join the port from now on.
    pub fn make_room(&self) {
        self.alone.store(false, Ordering::Relaxed);
    }
}

/// Has the kernel give new connections of a port to the sockets from `first` on, `count` of them.
pub fn steer_connections(listener: &impl AsFd, first: u16, count: u16) -> io::Result<()> {
    // Any 32 random bits (SKF_AD_RANDOM in linux/filter.h).
    let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, random),
        instruction(MODULO, 0, 0, count.max(1).into()),
        instruction(ADD, 0, 0, first.into()),
        instruction(RETURN, 0, 0, 0),
    ];
    attach(listener, &mut program)
}

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const JUMP_IF_SET: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const ADD: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_A;

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

fn attach(socket: &impl AsFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    Ok(setsockopt(socket, AttachReusePortCbpf, &program)?)
}

/// By the first byte of the destination's connection id: at offset 6 behind a long header's version and length, at offset 1 of a
/// short one (RFC 9000 section 17). A client's first id is its own and random; whatever socket it leads to answers with an id that
/// leads there again. What is shorter goes to the first socket.
fn to_own(own: Share) -> [libc::sock_filter; 8] {
    [
        instruction(LOAD_BYTE, 0, 0, 0),
        instruction(JUMP_IF_SET, 0, 2, 0x80),
        instruction(LOAD_BYTE, 0, 0, 6),
        instruction(JUMP, 0, 0, 1),
        instruction(LOAD_BYTE, 0, 0, 1),
        instruction(MODULO, 0, 0, own.workers.into()),
        instruction(ADD, 0, 0, own.first.into()),
        instruction(RETURN, 0, 0, 0),
    ]
}

/// As [`to_own`], but ids whose second byte is of the generation before lead to the process before. An Initial is of a connection
/// that begins, and so for the new process, whatever its id.
fn beside(own: Share, before: Share) -> [libc::sock_filter; 22] {
    let generation = own.generation.into();
    [
        instruction(LOAD_BYTE, 0, 0, 0),
        instruction(JUMP_IF_SET, 0, 6, 0x80),
        // A long header: an Initial is type 0.
        instruction(JUMP_IF_SET, 0, 10, 0x30),
        instruction(LOAD_BYTE, 0, 0, 7),
        instruction(AND, 0, 0, 1),
        instruction(JUMP_IF_EQUAL, 7, 0, generation),
        instruction(LOAD_BYTE, 0, 0, 6),
        instruction(JUMP, 0, 0, 11),
        // A short one.
        instruction(LOAD_BYTE, 0, 0, 2),
        instruction(AND, 0, 0, 1),
        instruction(JUMP_IF_EQUAL, 4, 0, generation),
        instruction(LOAD_BYTE, 0, 0, 1),
        instruction(JUMP, 0, 0, 6),
        // Ours.
        instruction(LOAD_BYTE, 0, 0, 6),
        instruction(JUMP, 0, 0, 1),
        instruction(LOAD_BYTE, 0, 0, 1),
        instruction(MODULO, 0, 0, own.workers.into()),
        instruction(ADD, 0, 0, own.first.into()),
        instruction(RETURN, 0, 0, 0),
        // The other's.
        instruction(MODULO, 0, 0, before.workers.into()),
        instruction(ADD, 0, 0, before.first.into()),
        instruction(RETURN, 0, 0, 0),
    ]
}
