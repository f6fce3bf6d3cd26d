//! Who gets which runtime, who waits and who must go: the policy, pure. It
//! takes the time and gives back steps; containers and sockets are `keeper`'s.
//!
//! - An identity has at most one runtime. Its first claim *leads*: it fetches
//!   the bundle and loads it; later ones *follow* and share what it loads.
//! - Identities, not claims, stand in line for a runtime, so one that floods
//!   takes one place. When nothing is idle, the one that held its runtime
//!   longest *yields*: no new claims, and it goes when the last one ends.
//! - Of several idle ones the one goes that is not expected back, or expected
//!   last, going by when it came before.
//! - Stems fill only what is left free; a live runtime is never evicted for one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use sluice_proto::job::Identity;
use sluice_proto::report::{Cause, Failure, Origin};

use crate::config::{Network, RuntimeConfig};
use crate::runtime::ledger::habits::Habits;

/// Creations under way at once: Podman's locks make more of them slower.
pub(super) const CREATIONS_MAX: usize = 3;

/// How long an identity may keep a busy runtime while others wait: a few times
/// what a cold start costs, so that turns are not all start-up.
const TURN: Duration = Duration::from_millis(500);

/// In the order of their declaration: a network's number is its place here.
pub(super) const NETWORKS: [Network; 3] = [Network::None, Network::Private, Network::Full];

/// Numbers one waiting claim.
pub(super) type Ticket = u64;
/// Numbers one runtime.
pub(super) type Number = u64;

#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) runtimes_max: usize,
    pub(super) stems_none: usize,
    /// With the network of apps, if they have one.
    pub(super) stems_app: usize,
    /// What the runtimes of apps reach.
    pub(super) app_network: Network,
    pub(super) idle: Duration,
    pub(super) age: Duration,
}

#[derive(Debug)]
pub(super) struct Ledger<T> {
    limits: Limits,
    slots: BTreeMap<Number, Slot<T>>,
    next_number: Number,
    next_ticket: Ticket,
    /// Live runtimes that take claims.
    live: HashMap<Identity, Number>,
    wants: HashMap<Identity, Want>,
    /// Wants without a runtime, first come first.
    line: VecDeque<Identity>,
    habits: Habits,
    /// Why no runtime with this network can be started.
    refusing: HashMap<Network, String>,
    /// No stems are made any more.
    draining: bool,
}

#[derive(Debug)]
struct Slot<T> {
    network: Network,
    state: State<T>,
    in_use: usize,
    /// Live: since when it is. Going: whatever it was.
    since: Instant,
    last_used: Instant,
    /// Stopped until its next claim.
    paused: bool,
    /// No new claims; goes when the last one ends.
    closing: Closing,
}

#[derive(Debug)]
enum State<T> {
    Starting,
    Stem(T),
    Loading(Identity, T),
    Live(Identity, T),
    Going,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    /// So that another identity gets a turn; may be taken back.
    Yields,
    /// In doubt.
    Retires,
}

#[derive(Debug)]
struct Want {
    leader: Ticket,
    followers: VecDeque<Ticket>,
    /// A runtime had to be started for it.
    cold: bool,
}

/// What a claim gets at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim<T> {
    Warm(Number, T),
    /// The same, but it is to be woken before it is used.
    Paused(Number, T),
    /// Fetch the bundle and wait for a runtime to load it into.
    Lead(Ticket),
    /// Wait for what the leader loads.
    Follow(Ticket),
    Refused(Failure),
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<T> {
    Start(Number, Network),
    Destroy(Number),
    /// A follower leads from now on.
    Lead(Ticket),
    /// The leader may load.
    Assign(Ticket, Number, T, Origin),
    /// The runtime is loaded, and one use of it is this ticket's.
    Share(Ticket, Number, T, Origin),
    Fail(Ticket, Failure),
}

// === impl Limits ===

impl Limits {
    /// With a network, the stems are split: a runtime's network is chosen
    /// when it starts. Flows are evaluated more often, so they get the larger half.
    pub(super) fn of(config: &RuntimeConfig) -> Self {
        let stems = config.stems.min(config.runtimes_max) as usize;
        let stems_app = match config.network {
            Network::None => 0,
            Network::Private | Network::Full => stems / 2,
        };
        Self {
            runtimes_max: config.runtimes_max as usize,
            stems_none: stems - stems_app,
            stems_app,
            app_network: config.network,
            idle: config.idle,
            age: config.age,
        }
    }

    fn network(&self, identity: &Identity) -> Network {
        match identity {
            Identity::Flow { .. } => Network::None,
            Identity::App { .. } => self.app_network,
        }
    }

    fn stems(&self, network: Network) -> usize {
        if network == Network::None {
            self.stems_none
        } else if network == self.app_network {
            self.stems_app
        } else {
            0
        }
    }
}

// === impl Ledger ===

impl<T: Clone> Ledger<T> {
    /// Refuses until [`Ledger::accept`].
    pub(super) fn new(limits: Limits, refusing: String) -> Self {
        Self {
            limits,
            slots: BTreeMap::new(),
            next_number: 1,
            next_ticket: 1,
            live: HashMap::new(),
            wants: HashMap::new(),
            line: VecDeque::new(),
            habits: Habits::default(),
            refusing: NETWORKS.map(|network| (network, refusing.clone())).into(),
            draining: false,
        }
    }

    pub(super) fn claim(&mut self, identity: &Identity, now: Instant) -> Claim<T> {
        if let Some(&number) = self.live.get(identity)
            && let Some(slot) = self.slots.get_mut(&number)
            && let State::Live(_, handle) = &slot.state
        {
            if slot.in_use == 0 {
                self.habits.came(identity, now);
            }
            slot.in_use += 1;
            slot.last_used = now;
            let handle = handle.clone();
            return if std::mem::take(&mut slot.paused) {
                Claim::Paused(number, handle)
            } else {
                Claim::Warm(number, handle)
            };
        }
        let ticket = self.next_ticket;
        if let Some(want) = self.wants.get_mut(identity) {
            self.next_ticket += 1;
            want.followers.push_back(ticket);
            return Claim::Follow(ticket);
        }
        let network = self.limits.network(identity);
        if let Some(reason) = self.refusing.get(&network)
            && !self.has_stem(network)
        {
            return Claim::Refused(Failure::new(Cause::RuntimeUnavailable, reason.clone()));
        }
        self.next_ticket += 1;
        self.habits.came(identity, now);
        self.wants.insert(
            identity.clone(),
            Want {
                leader: ticket,
                followers: VecDeque::new(),
                cold: false,
            },
        );
        self.line.push_back(identity.clone());
        Claim::Lead(ticket)
    }

    /// A claim that waits is given up.
    pub(super) fn withdraw(&mut self, identity: &Identity, ticket: Ticket) -> Vec<Step<T>> {
        let Some(want) = self.wants.get_mut(identity) else {
            return Vec::new();
        };
        if want.leader != ticket {
            want.followers.retain(|&follower| follower != ticket);
            return Vec::new();
        }
        self.next_leader(identity)
    }

    /// The leader loaded its bundle: one use of the runtime is its own.
    pub(super) fn loaded(&mut self, number: Number, now: Instant) -> Vec<Step<T>> {
        let Some(slot) = self.slots.get_mut(&number) else {
            return Vec::new();
        };
        let State::Loading(identity, handle) = &slot.state else {
            return Vec::new();
        };
        let (identity, handle) = (identity.clone(), handle.clone());
        slot.state = State::Live(identity.clone(), handle.clone());
        slot.since = now;
        slot.last_used = now;
        slot.in_use = 1;
        if slot.closing == Closing::No {
            self.live.insert(identity.clone(), number);
        }
        let Some(want) = self.wants.remove(&identity) else {
            return Vec::new();
        };
        slot.in_use += want.followers.len();
        let origin = if want.cold {
            Origin::Cold
        } else {
            Origin::Stem
        };
        want.followers
            .into_iter()
            .map(|ticket| Step::Share(ticket, number, handle.clone(), origin))
            .collect()
    }

    /// The bundle is bad: everyone who waits for it hears so.
    pub(super) fn load_failed(&mut self, number: Number, failure: &Failure) -> Vec<Step<T>> {
        let mut steps = Vec::new();
        if let Some(identity) = self.loading(number)
            && let Some(want) = self.wants.remove(&identity)
        {
            let fail = |ticket| Step::Fail(ticket, failure.clone());
            steps.extend(want.followers.into_iter().map(fail));
        }
        self.destroy(number, &mut steps);
        steps
    }

    /// The leader gave up before it told the runtime anything: it is a stem still.
    pub(super) fn load_untouched(&mut self, number: Number) -> Vec<Step<T>> {
        let Some(identity) = self.loading(number) else {
            return Vec::new();
        };
        if let Some(slot) = self.slots.get_mut(&number)
            && let State::Loading(_, handle) = &slot.state
        {
            slot.state = State::Stem(handle.clone());
        }
        self.next_leader(&identity)
    }

    /// The load was broken off, or the runtime died of it: it cannot be used.
    pub(super) fn load_abandoned(&mut self, number: Number) -> Vec<Step<T>> {
        let Some(identity) = self.loading(number) else {
            return Vec::new();
        };
        let mut steps = self.next_leader(&identity);
        self.destroy(number, &mut steps);
        steps
    }

    pub(super) fn released(&mut self, number: Number, now: Instant) -> Vec<Step<T>> {
        let mut steps = Vec::new();
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.in_use = slot.in_use.saturating_sub(1);
            slot.last_used = now;
            let over = slot.in_use == 0 && slot.closing != Closing::No;
            if over && !matches!(slot.state, State::Going) {
                self.destroy(number, &mut steps);
            }
        }
        steps
    }

    /// No new claims for this one; it goes when the last one ends.
    pub(super) fn retire(&mut self, number: Number) -> Vec<Step<T>> {
        let mut steps = Vec::new();
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.closing = Closing::Retires;
            let idle = slot.in_use == 0;
            if let State::Live(identity, _) = &slot.state
                && self.live.get(identity) == Some(&number)
            {
                self.live.remove(identity);
            }
            if matches!(slot.state, State::Live(..) | State::Stem(_)) && idle {
                self.destroy(number, &mut steps);
            }
        }
        steps
    }

    /// It is dead or condemned.
    pub(super) fn dead(&mut self, number: Number) -> Vec<Step<T>> {
        // A leader that is loading hears it from the conversation.
        let mut steps = Vec::new();
        if self.loading(number).is_none() {
            self.destroy(number, &mut steps);
        }
        steps
    }

    pub(super) fn started(&mut self, number: Number, handle: T) {
        if let Some(slot) = self.slots.get_mut(&number)
            && matches!(slot.state, State::Starting)
        {
            slot.state = State::Stem(handle);
            let network = slot.network;
            self.accept(network);
        }
    }

    /// No runtime with this network can be had: everyone in line for one hears
    /// why, and no other is started until one is seen to start.
    pub(super) fn start_failed(&mut self, number: Number, reason: &str) -> Vec<Step<T>> {
        match self.slots.remove(&number) {
            Some(slot) => self.refuse(slot.network, reason),
            None => Vec::new(),
        }
    }

    pub(super) fn refuse(&mut self, network: Network, reason: &str) -> Vec<Step<T>> {
        self.refusing.insert(network, reason.to_owned());
        let failure = Failure::new(Cause::RuntimeUnavailable, reason);
        let mut steps = Vec::new();
        for identity in std::mem::take(&mut self.line) {
            if self.limits.network(&identity) != network {
                self.line.push_back(identity);
            } else if let Some(want) = self.wants.remove(&identity) {
                let tickets = std::iter::once(want.leader).chain(want.followers);
                steps.extend(tickets.map(|ticket| Step::Fail(ticket, failure.clone())));
            }
        }
        steps
    }

    pub(super) fn accept(&mut self, network: Network) {
        self.refusing.remove(&network);
    }

    pub(super) fn destroyed(&mut self, number: Number) {
        self.slots.remove(&number);
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    pub(super) fn refusing(&self) -> Option<&str> {
        let mut reasons = NETWORKS
            .iter()
            .filter_map(|network| self.refusing.get(network));
        reasons.next().map(String::as_str)
    }

    /// Starts one runtime although that failed before, to see; if there is room.
    pub(super) fn probe(&mut self, network: Network, now: Instant) -> Option<Step<T>> {
        (self.slots.len() < self.limits.runtimes_max).then(|| self.start(network, now))
    }

    fn loading(&self, number: Number) -> Option<Identity> {
        match &self.slots.get(&number)?.state {
            State::Loading(identity, _) => Some(identity.clone()),
            State::Starting | State::Stem(_) | State::Live(..) | State::Going => None,
        }
    }

    fn has_stem(&self, network: Network) -> bool {
        self.slots
            .values()
            .any(|slot| slot.network == network && matches!(slot.state, State::Stem(_)))
    }

    /// The want of `identity` goes to its next follower, at the head of the line.
    fn next_leader(&mut self, identity: &Identity) -> Vec<Step<T>> {
        self.line.retain(|waiting| waiting != identity);
        let Some(want) = self.wants.get_mut(identity) else {
            return Vec::new();
        };
        match want.followers.pop_front() {
            Some(ticket) => {
                want.leader = ticket;
                self.line.push_front(identity.clone());
                vec![Step::Lead(ticket)]
            }
            None => {
                self.wants.remove(identity);
                Vec::new()
            }
        }
    }

    fn start(&mut self, network: Network, now: Instant) -> Step<T> {
        let number = self.next_number;
        self.next_number += 1;
        let slot = Slot {
            network,
            state: State::Starting,
            in_use: 0,
            since: now,
            last_used: now,
            paused: false,
            closing: Closing::No,
        };
        self.slots.insert(number, slot);
        Step::Start(number, network)
    }

    fn destroy(&mut self, number: Number, steps: &mut Vec<Step<T>>) {
        let Some(slot) = self.slots.get_mut(&number) else {
            return;
        };
        if let State::Live(identity, _) = &slot.state
            && self.live.get(identity) == Some(&number)
        {
            self.live.remove(identity);
        }
        if !matches!(slot.state, State::Going) {
            slot.state = State::Going;
            steps.push(Step::Destroy(number));
        }
    }
}

mod habits;
mod look;
mod plan;
