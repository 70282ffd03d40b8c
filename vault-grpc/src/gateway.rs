//! A running gateway: both listeners on one vault, what it tells about itself, reload and drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use vault_core::audit::{Health, LogVerifier, SystemEvent};
use vault_core::principal::{Operator, OperatorList, Workload};
use vault_core::time::{Clock, SystemClock};
use vault_core::vault::CharterStanding;
use vault_core::{Error, Vault};

use crate::build::{self, StartError};
use crate::charter;
use crate::config::{Config, ConfigError};
use crate::end_users::{self, EndUsers};
use crate::listener::{self, Phase, Shared};
use crate::metrics::inventory::{self, Inventory};
use crate::metrics::{self, Metrics, render};
use crate::operators::{self, Operators};
use crate::plane::{Admission, Principal};
use crate::refusals::Refusals;
use crate::scorecard;
use crate::service;
use crate::sinks::{self, Sinks};
use crate::telemetry::{Event, log};
use crate::tls::{Current, Material, Materials};
use crate::witness::Witnesses;

/// How often health is looked at.
const HEALTH_EVERY: Duration = Duration::from_millis(250);
/// How often what is under way or due for tenants is looked for.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked whether another policy bundle came into force; how often it is looked anyhow; and the pause after
/// a failure.
const POLICIES_EVERY: Duration = Duration::from_millis(25);
const POLICIES_ANYHOW: Duration = Duration::from_millis(500);
const POLICIES_AGAIN: Duration = Duration::from_millis(100);
/// How long a refusal, or the state of the store, may wait for the audit log before it is only in the log lines; and
/// leaving the store.
const REFUSALS_DEADLINE: Duration = Duration::from_secs(5);
/// After the connections are cut: how long their tasks may take.
const AFTER_CUT: Duration = Duration::from_secs(3);

/// Names of the health service besides the empty one, which stands for the whole gateway.
const DATA_SERVICE: &str = "vault.v1.CryptoService";
const CONTROL_SERVICES: [&str; 6] = [
    "vault.v1.TenantService",
    "vault.v1.DatasetService",
    "vault.v1.ApprovalService",
    "vault.v1.PolicyService",
    "vault.v1.CharterService",
    "vault.v1.ScorecardService",
];

/// A running gateway. End it with [`Self::shutdown`]; one that is only dropped is cut off as by a crash, which loses
/// nothing that was acknowledged.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    data_addr: SocketAddr,
    control_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    vault: Arc<Vault>,
    data: Arc<Current<Workload>>,
    control: Arc<Current<Operator>>,
    end_users: Arc<EndUsers>,
    operators: Arc<Operators>,
    log_key: LogVerifier,
    refusals: Arc<Refusals>,
    phase: watch::Sender<Phase>,
    listeners: Vec<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Loads what the configuration names, opens the vault and both listeners. When it returns, both accept.
    ///
    /// # Errors
    /// [`StartError`]: what is wrong, and where. Nothing is listening then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let charter = charter::of(&config)?;
        let materials = Materials::load(&config)?;
        let end_users = Arc::new(EndUsers::load(&config)?);
        let log_key = build::signer(&config)?.verifier().clone();
        let witnesses = Arc::new(Witnesses::load(&config, &log_key)?);
        let sinks = Sinks::load(&config, &log_key)?;
        let (list, keys) = (operators::list(&config, &log_key)?, operators::keys(&config)?);
        let refusals = Arc::new(Refusals::default());
        let operators = Arc::new(Operators::new(list, keys, Arc::clone(&refusals)));
        // Both addresses first: a gateway that cannot listen leaves store and log as they were.
        let (data_tcp, control_tcp) = (bind(&config, true).await?, bind(&config, false).await?);
        let metrics_tcp = match config.metrics {
            Some(address) => Some(bind_to(&config, address, "metrics.address").await?),
            None => None,
        };
        let metrics_addr = metrics_tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
        let (building, list) = (config.clone(), operators.list());
        let vault = spawn_blocking(move || build::vault_for(&building, &list)).await.map_err(|_| {
            StartError::Config(ConfigError::new(config.file.display().to_string(), "opening the vault panicked"))
        })??;
        let patience = sinks.patience();
        sinks.attach(&vault)?;
        sinks::ready(&vault, patience).await;
        let vault = Arc::new(vault);
        charter::unchanged(&config, &charter)?;
        operators::tell(&config, &operators.list());
        if config.operators.list.is_some() {
            // Who could call is in the log before anybody can.
            vault.audit().system(SystemEvent::Operators(operators.list().reference())).await?;
        }
        let (phase, watching) = watch::channel(Phase::Open);
        let metrics = Arc::new(Metrics::default());
        let reporter = HealthReporter::new();
        let data = Arc::new(Current::new(materials.data));
        let control = Arc::new(Current::new(materials.control));
        let data_routes = with_health(service::data_routes(&vault, &end_users, &config.limits), &reporter);
        let scorecards = Arc::new(scorecard::Source::new(&config, &log_key, &witnesses, (&data, &control)));
        let control_routes = with_health(service::control_routes(&vault, &scorecards, &config.limits), &reporter);
        set_health(&reporter, is_serving(&vault)).await;
        let shared = |routes| Sharing {
            limits: config.limits,
            routes,
            refusals: Arc::clone(&refusals),
            metrics: Arc::clone(&metrics),
            vault: Arc::clone(&vault),
            phase: watching.clone(),
        };
        let admission: Arc<dyn Admission<Operator>> = operators.clone();
        let (data_addr, data_task) = listen(data_tcp, &data, None, shared(data_routes))?;
        let (control_addr, control_task) = listen(control_tcp, &control, Some(admission), shared(control_routes))?;
        let mut background = vec![
            tokio::spawn(watch_health(Arc::clone(&vault), reporter, watching)),
            tokio::spawn(tell_refusals(Arc::clone(&vault), Arc::clone(&refusals))),
            tokio::spawn(tend(Arc::clone(&vault))),
            tokio::spawn(follow_policies(Arc::clone(&vault))),
            tokio::spawn(charter::follow(Arc::downgrade(&vault))),
        ];
        if !config.sinks.is_empty() {
            background.push(tokio::spawn(sinks::tell(Arc::downgrade(&vault))));
        }
        if config.policy.prove.is_some() {
            background.push(tokio::spawn(prepare_policies(Arc::clone(&vault))));
        }
        background.extend(end_users.fetch());
        background.extend(operators.fetch());
        background.extend(witnesses.ask(&vault));
        if let Some(tcp) = metrics_tcp {
            let inventory = Arc::new(Inventory::default());
            let (told, from, log_key) = (Arc::clone(&inventory), Arc::downgrade(&vault), log_key.clone());
            background.push(tokio::spawn(inventory::follow(told, from, log_key)));
            let planes = (Arc::clone(&data), Arc::clone(&control));
            let (metrics, refusals, vault) = (Arc::clone(&metrics), Arc::clone(&refusals), Arc::downgrade(&vault));
            let end_users = Arc::clone(&end_users);
            let render = move || {
                let told = vault.upgrade();
                let told = told.map(|vault| {
                    let ends = scorecard::endings(&planes.0.load(), &planes.1.load());
                    let mut told = render(&metrics, &refusals, &end_users, &vault) + &witnesses.render();
                    told.push_str(&charter::render(&vault));
                    told.push_str(&sinks::render(&vault.audit().sinks()));
                    told.push_str(&inventory::render(&inventory, &vault, &refusals, &ends));
                    told
                });
                told.unwrap_or_default()
            };
            background.push(tokio::spawn(metrics::serve(tcp, Arc::new(render))));
        }
        let listeners = vec![data_task, control_task];
        Ok(Self {
            config,
            data_addr,
            control_addr,
            metrics_addr,
            vault,
            data,
            control,
            end_users,
            operators,
            log_key,
            refusals,
            phase,
            listeners,
            background,
        })
    }

    /// Where the data plane listens.
    pub const fn data_addr(&self) -> SocketAddr {
        self.data_addr
    }

    /// Where the control plane listens.
    pub const fn control_addr(&self) -> SocketAddr {
        self.control_addr
    }

    /// Where metrics are told, if they are.
    pub const fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// The vault behind it.
    pub const fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// Reads certificates, keys, bundles, revocation lists, policies, registry, the list of operators and issuers' key files
    /// again, from the files that the configuration named at the start, and puts all of it in force, or none. New handshakes use it at once; open
    /// connections go on unless their certificate is refused now. Where policy signers are configured, policies and
    /// registry are left alone: they come by bundle. Answers the policy epoch.
    ///
    /// # Errors
    /// The first file that is not acceptable; what was in force stays.
    pub async fn reload(&self) -> Result<u64, ConfigError> {
        let config = self.config.clone();
        let (signed, log_key) = (!config.policy.signers.is_empty(), self.log_key.clone());
        let loading = spawn_blocking(move || {
            let charter = charter::of(&config)?;
            let policies = if signed { None } else { Some(build::policies(&config)?) };
            let keys = (end_users::file_keys(&config)?, operators::file_keys(&config)?);
            let loaded = (Materials::load(&config)?, policies, keys, operators::list(&config, &log_key)?);
            charter::unchanged(&config, &charter)?;
            Ok((charter, loaded))
        });
        let place = || self.config.file.display().to_string();
        let (charter, (materials, policies, keys, list)) =
            loading.await.map_err(|_| ConfigError::new(place(), "reading the files panicked"))??;
        if let Some(named) = &self.config.operators.list {
            let before = self.operators.list().reference();
            list.check_follows(Some(before)).map_err(|error| named.file.error(error))?;
        }
        let standing = self.vault.adopt_charter(&charter, !self.config.charter_enforced).await;
        if let CharterStanding::Differs(changes) =
            standing.map_err(|error| ConfigError::new(place(), error.to_string()))?
        {
            return Err(build::differs(&self.config, &changes));
        }
        self.record(&list).await?;
        let swapped = policies.map(|(set, registry)| self.vault.authorizer().swap(set, registry));
        self.data.replace(materials.data);
        self.control.replace(materials.control);
        self.end_users.put(keys.0);
        self.operators.put(keys.1);
        operators::tell(&self.config, &list);
        self.operators.replace(list);
        if let Some(epoch) = swapped
            && let Err(error) = self.vault.audit().system(SystemEvent::PolicyEpoch(epoch)).await
        {
            log(&Event::Failed { what: "record the policy epoch", error });
        }
        let epoch = self.vault.authorizer().epoch();
        log(&Event::Reloaded { epoch });
        Ok(epoch)
    }

    /// Records a list of operators that is about to come into force.
    async fn record(&self, list: &OperatorList) -> Result<(), ConfigError> {
        if self.config.operators.list.is_none() {
            return Ok(());
        }
        let recorded = self.vault.audit().system(SystemEvent::Operators(list.reference())).await;
        recorded.map(drop).map_err(|error| ConfigError::new("the audit log", error.to_string()))
    }

    /// Stops: no new connections, a GOAWAY to those that are open, their calls finish within `limits.drain_timeout_ms`,
    /// then the rest is cut, all keys in memory are wiped and the audit log is closed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the audit log had failed or could not be closed; what was acknowledged is there.
    pub async fn shutdown(self) -> Result<(), Error> {
        let Self { config, vault, data, control, refusals, phase, mut listeners, background, .. } = self;
        phase.send_replace(Phase::Draining);
        let deadline = Instant::now() + config.limits.drain_timeout;
        for listener in &mut listeners {
            if tokio::time::timeout_at(deadline, listener).await.is_err() {
                log(&Event::Warning("calls were still running at the drain deadline and are cut"));
                break;
            }
        }
        phase.send_replace(Phase::Cut);
        for listener in listeners {
            if !listener.is_finished() && timeout(AFTER_CUT, listener).await.is_err() {
                log(&Event::Warning("a listener did not end"));
            }
        }
        for task in background {
            task.abort();
            drop(task.await);
        }
        tell_once(&vault, &refusals).await;
        anchor(&vault).await;
        drop((data, control));
        match timeout(REFUSALS_DEADLINE, vault.leave()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log(&Event::Failed { what: "leave the other gateways", error }),
            Err(_) => {
                log(&Event::Warning("the store did not let this gateway leave in time; others wait for its lease"))
            }
        }
        vault.keys().evict_all();
        close(vault).await
    }
}

/// Closes the log once the last call has let go of the vault.
async fn close(mut vault: Arc<Vault>) -> Result<(), Error> {
    let deadline = Instant::now() + AFTER_CUT;
    loop {
        match Arc::try_unwrap(vault) {
            Ok(vault) => {
                let closed = spawn_blocking(move || vault.close()).await;
                return closed.unwrap_or(Err(Error::unavailable(
                    vault_core::error::Dependency::Audit,
                    "closing the log panicked",
                )));
            }
            Err(held) if Instant::now() < deadline => {
                vault = held;
                sleep(Duration::from_millis(5)).await;
            }
            Err(_) => {
                return Err(Error::unavailable(
                    vault_core::error::Dependency::Audit,
                    "a call did not end, so the log was not closed; it is complete, and recovers at the next start",
                ));
            }
        }
    }
}

async fn bind(config: &Config, data: bool) -> Result<TcpListener, ConfigError> {
    let (listener, key) = if data { (&config.data, "data.address") } else { (&config.control, "control.address") };
    bind_to(config, listener.address, key).await
}

async fn bind_to(config: &Config, address: SocketAddr, key: &str) -> Result<TcpListener, ConfigError> {
    TcpListener::bind(address).await.map_err(|error| {
        let place = format!("{}, {key}", config.file.display());
        ConfigError::new(place, format!("cannot listen on {address}: {}", error.kind()))
    })
}

/// What a listener shares with the rest, whichever its plane.
struct Sharing {
    limits: crate::config::Limits,
    routes: Routes,
    refusals: Arc<Refusals>,
    metrics: Arc<Metrics>,
    vault: Arc<Vault>,
    phase: watch::Receiver<Phase>,
}

fn listen<P: Principal>(
    tcp: TcpListener,
    current: &Arc<Current<P>>,
    admission: Option<Arc<dyn Admission<P>>>,
    sharing: Sharing,
) -> Result<(SocketAddr, JoinHandle<()>), StartError> {
    let address = tcp.local_addr().map_err(|_| ConfigError::new(P::PLANE, "the listener has no address"))?;
    let Sharing { limits, routes, refusals, metrics, vault, phase } = sharing;
    let (current, routes) = (Arc::clone(current), routes.prepare());
    let shared = Shared { current, limits, routes, admission, refusals, metrics, vault, phase };
    let task = tokio::spawn(listener::run(tcp, Arc::new(shared)));
    log(&Event::Listening { plane: P::PLANE, address });
    Ok((address, task))
}

fn with_health(routes: Routes, reporter: &HealthReporter) -> Routes {
    routes.add_service(HealthServer::new(HealthService::from_health_reporter(reporter.clone())))
}

/// Whether a data call can be answered: without an entry in the log there is none, nor where what is in memory may have
/// been revoked long ago, nor where the policies in force could not be loaded.
fn is_serving(vault: &Vault) -> bool {
    matches!(vault.audit().health(), Health::Good | Health::TilesBehind(_))
        && vault.keys().lease().is_ok()
        && vault.policies_ready().is_ok()
}

async fn set_health(reporter: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in ["", DATA_SERVICE].into_iter().chain(CONTROL_SERVICES) {
        reporter.set_service_status(service, status).await;
    }
}

async fn watch_health(vault: Arc<Vault>, reporter: HealthReporter, mut phase: watch::Receiver<Phase>) {
    let mut told = is_serving(&vault);
    let mut ticks = interval(HEALTH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = Phase::Draining.reached(&mut phase) => return set_health(&reporter, false).await,
            _ = ticks.tick() => {}
        }
        let serving = is_serving(&vault);
        if serving != told {
            set_health(&reporter, serving).await;
            log(&Event::Health { serving });
            told = serving;
        }
    }
}

/// Carries on rotations, shreds and scheduled destructions: first what the last process left, then what becomes due.
async fn tend(vault: Arc<Vault>) {
    let mut ticks = interval(TEND_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match vault.tend(|| true).await {
            Ok(tended) if tended.failed > 0 => {
                log(&Event::Warning("the work on some tenants' keys could not go on; it is tried again"));
            }
            Ok(_) => {}
            Err(error) => log(&Event::Failed { what: "look for work on tenants' keys", error }),
        }
    }
}

/// Loads the policy bundle in force, whenever it may be another.
async fn follow_policies(vault: Arc<Vault>) {
    let mut ticks = interval(POLICIES_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut looked, mut told) = (Instant::now(), None);
    loop {
        ticks.tick().await;
        if !vault.policies_changed() && looked.elapsed() < POLICIES_ANYHOW {
            continue;
        }
        let (before, begun) = (vault.policy_bundle(), Instant::now());
        let failed = vault.refresh_policies().await.err();
        looked = Instant::now();
        if let Some(bundle) = vault.policy_bundle().filter(|bundle| before != Some(*bundle)) {
            log(&Event::Policies { version: bundle.version, epoch: vault.authorizer().epoch() });
        }
        // Each reason once, until it is over.
        if let Some(error) = failed.clone().filter(|_| told != failed) {
            log(&Event::Failed { what: "load the policy bundle in force", error });
        }
        let again = failed.is_some();
        told = failed;
        if again {
            // A proof that fails again and again takes half of the time at most.
            sleep(POLICIES_AGAIN.max(begun.elapsed())).await;
        }
    }
}

/// Judges the policy bundles that wait, once each, so that their proofs are there before they come into force.
async fn prepare_policies(vault: Arc<Vault>) {
    let mut ticks = interval(POLICIES_ANYHOW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut judged = Vec::new();
    loop {
        ticks.tick().await;
        // A store that is away is told by others.
        let Ok(waiting) = vault.waiting_policies().await else { continue };
        judged.retain(|bundle| waiting.contains(bundle));
        for bundle in waiting {
            if judged.contains(&bundle) {
                continue;
            }
            judged.push(bundle);
            if let Err(error) = vault.prepare_policy(bundle).await {
                log(&Event::Failed { what: "prepare a policy bundle that waits", error });
            }
        }
    }
}

async fn tell_refusals(vault: Arc<Vault>, refusals: Arc<Refusals>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut behind = None;
    loop {
        ticks.tick().await;
        // Each reason once, until it is over.
        let now = vault.audit().segments().behind;
        if let Some(why) = now.filter(|_| behind != now) {
            log(&Event::Warning(why));
        }
        behind = now;
        tell_once(&vault, &refusals).await;
        anchor(&vault).await;
    }
}

/// Records the state of a store that others share, so that an older one is refused at the next start.
async fn anchor(vault: &Vault) {
    match timeout(REFUSALS_DEADLINE, vault.anchor()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log(&Event::Failed { what: "record the state of the store", error }),
        Err(_) => log(&Event::Warning("the audit log did not take the state of the store in time")),
    }
}

async fn tell_once(vault: &Vault, refusals: &Refusals) {
    let second = SystemClock.now().secs();
    for ((plane, reason), count) in refusals.take() {
        log(&Event::Refused { plane, reason, count });
        let recorded = vault.audit().system(SystemEvent::Refusals { reason, second, count });
        match timeout(REFUSALS_DEADLINE, recorded).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => log(&Event::Failed { what: "record refused connections", error }),
            Err(_) => log(&Event::Warning("the audit log took no refused connections in time")),
        }
    }
}

/// Compile-time proof that what the listeners share may cross threads.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Material<Workload>>();
};
