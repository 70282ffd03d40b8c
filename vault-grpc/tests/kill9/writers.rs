//! Clients that write until the gateway, or its database, is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;
use vault_client::{ClientError, Code, OperatorClient, Origin, Target, VaultClient};
use vault_proto::v1::ApprovalState;

use crate::acknowledged::{Acknowledged, DATASETS, Shred, WORKLOADS, Write};
use crate::served::Served;

/// The kill that a cycle ends with.
#[derive(Debug)]
pub(crate) struct Kill {
    /// Of the database instead of the gateway: then the gateway itself answers that it is gone.
    pub(crate) database: bool,
    begun: AtomicBool,
}

impl Kill {
    pub(crate) fn new(database: bool) -> Arc<Self> {
        Arc::new(Self { database, begun: AtomicBool::new(false) })
    }

    /// From here on, calls may fail.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Whether a writer need not go on. One of a gateway that is killed goes on until it hears nothing any more.
    fn is_over(&self) -> bool {
        self.database && self.has_begun()
    }

    /// An error before the kill is a failure of the test; afterwards it is the end of the writer.
    fn ends(&self, error: &ClientError) -> bool {
        assert!(self.has_begun(), "refused before the kill: {error}");
        if self.database {
            assert!(matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded), "{error}");
        } else {
            assert_eq!(error.origin(), Origin::Transport, "{error}");
        }
        true
    }
}

/// What each writer knows.
#[derive(Clone)]
struct Lane {
    /// In the names of what it makes.
    run: String,
    done: Arc<Acknowledged>,
    kill: Arc<Kill>,
}

/// Starts them all.
pub(crate) fn start(served: &Served, cycle: usize, (done, kill): (&Arc<Acknowledged>, &Arc<Kill>)) -> JoinSet<()> {
    let lane = |run: String| Lane { run, done: Arc::clone(done), kill: Arc::clone(kill) };
    let Served { workloads, alice, bob, .. } = served;
    let mut writers = JoinSet::new();
    for (workload, client) in workloads.iter().enumerate() {
        for number in 0..4 {
            writers.spawn(encrypt(client.clone(), workload, lane(format!("{cycle}-{number}"))));
        }
    }
    writers.spawn(create(alice.clone(), lane(cycle.to_string())));
    writers.spawn(shred((alice.clone(), bob.clone()), workloads[0].clone(), lane(cycle.to_string())));
    writers.spawn(rotate(alice.clone(), cycle, lane(String::new())));
    writers
}

async fn encrypt(client: VaultClient, workload: usize, Lane { run, done, kill }: Lane) {
    for n in 0.. {
        if kill.is_over() {
            return;
        }
        // New subjects make new rows of keys; ten that come again have keys that are rotated meanwhile.
        let (dataset, subject) = if n % 4 == 3 {
            (DATASETS[1], format!("s-{}", n / 4 % 10))
        } else {
            (DATASETS[0], format!("s-{run}-{workload}-{n}"))
        };
        let target = Target::new(WORKLOADS[workload].1, dataset, "test").subject(&subject);
        match client.encrypt(&target, subject.as_bytes()).await {
            Ok(sealed) => {
                done.call();
                done.receipts.lock().unwrap().push(sealed.audit_receipt.unwrap());
                done.writes.lock().unwrap().push(Write { workload, dataset, subject, envelope: sealed.envelope });
            }
            Err(error) if kill.ends(&error) => return,
            Err(_) => {}
        }
    }
}

async fn create(operator: OperatorClient, Lane { run, done, kill }: Lane) {
    for n in 0.. {
        let tenant = format!("t-{run}-{n}");
        let steps = async {
            operator.create_tenant(&tenant, None, "test").await?;
            done.call();
            done.tenants.lock().unwrap().push((tenant.clone(), false));
            operator.create_dataset(&tenant, DATASETS[0], "pii", "eu", "test").await?;
            done.call();
            done.tenants.lock().unwrap().last_mut().unwrap().1 = true;
            Ok(())
        };
        if kill.is_over() || steps.await.is_err_and(|error| kill.ends(&error)) {
            return;
        }
    }
}

async fn rotate(operator: OperatorClient, first: usize, Lane { done, kill, .. }: Lane) {
    for n in first.. {
        let workload = n % 2;
        let tenant = WORKLOADS[workload].1;
        // In either order, as a kill may come before the second.
        let data_keys_first = n / 2 % 2 == 0;
        let steps = async {
            if data_keys_first {
                operator.rotate_data_keys(tenant, Some(DATASETS[1]), "test").await?;
                done.call();
            }
            let rotated = operator.rotate_tenant_key(tenant, "test").await?;
            done.call();
            done.tenant_keys.lock().unwrap()[workload] = rotated.tenant.unwrap().active_key_version;
            if !data_keys_first {
                operator.rotate_data_keys(tenant, Some(DATASETS[1]), "test").await?;
                done.call();
            }
            Ok(())
        };
        if kill.is_over() || steps.await.is_err_and(|error| kill.ends(&error)) {
            return;
        }
    }
}

async fn shred((alice, bob): (OperatorClient, OperatorClient), client: VaultClient, lane: Lane) {
    let Lane { run, done, kill } = lane;
    let tenant = WORKLOADS[0].1;
    for n in 0.. {
        let subject = format!("gone-{run}-{n}");
        let steps = async {
            let target = Target::new(tenant, DATASETS[0], "test").subject(&subject);
            let envelope = client.encrypt(&target, subject.as_bytes()).await?.envelope;
            done.call();
            let asked = alice.shred_subject(tenant, &subject, "test").await?;
            done.call();
            let shred = Shred { subject: subject.clone(), envelope, asked: asked.clone(), executed: false };
            done.shreds.lock().unwrap().push(shred);
            // What is approved is carried out, though the answer may come before the receipt.
            let state = bob.approve(&asked, Some(&subject), "test").await?.state();
            let executed = matches!(state, ApprovalState::Approved | ApprovalState::Executed);
            done.call();
            done.shreds.lock().unwrap().last_mut().unwrap().executed = executed;
            Ok(())
        };
        if kill.is_over() || steps.await.is_err_and(|error| kill.ends(&error)) {
            return;
        }
    }
}
