//! Accounts of AWS: their connectors, and the lists by which their keys are known.

use curfew::clock;
#[cfg(feature = "aws")]
use curfew::config::KeyList;
use curfew::config::{Aws, Target};
use curfew::connector::Registry;
use curfew::connector::recipe::{Place, Recipe};

use crate::Failed;
use crate::process::Process;

#[cfg(feature = "aws")]
mod with {
    use std::num::NonZeroU32;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    use curfew::connector::aws::name::KeyName;
    use curfew::connector::aws::quota::Quotas;
    use curfew::connector::aws::{self, Account, AwsSettings, Listed, Login};
    use curfew::connector::recipe::Keeper;
    use curfew::connector::{self, vault};
    use curfew::credential::{CredentialId, Kind};
    use curfew::event::{CredentialRegistered, Event};
    use curfew::intake::Intake;
    use curfew::inventory::aws::{Held, PER_SECOND, scan};
    use curfew::task::Tenant;
    use tokio_util::sync::CancellationToken;

    use super::{Aws, Failed, KeyList, Place, Process, Recipe, Registry, Target, clock};
    use crate::enforce::refused;

    /// Users whose keys are recorded together.
    const CHUNK: usize = 100;
    const PACE: NonZeroU32 = NonZeroU32::new(PER_SECOND).expect("not zero");
    /// What these lists are called among the inventories of an account.
    const PART: &str = "keys";

    fn settings(target: &Target, aws: &Aws, login: Option<&PathBuf>) -> AwsSettings {
        let login = login.cloned().map_or(Login::Machine, Login::File);
        AwsSettings {
            endpoint: aws.endpoint.clone(),
            timeout_ms: u64::try_from(target.timeout_ms).unwrap_or(0),
            quotas: Quotas::new(&aws.account, &aws.region, aws.quota_percent),
            cut_roles: aws.cut_roles.clone(),
            ..AwsSettings::new(&aws.account, &aws.region, login, aws.users.clone())
        }
    }

    /// Of who only reads: it takes of AWS's quotas what enforcement leaves, and nobody has to count it.
    fn reader(target: &Target, aws: &Aws, list: &KeyList) -> AwsSettings {
        let login = list.credentials_file.as_ref().or(aws.credentials_file.as_ref());
        let quotas = Quotas::new(&aws.account, &aws.region, 100_u32.saturating_sub(aws.quota_percent));
        AwsSettings { quotas, ..settings(target, aws, login) }
    }

    fn wrong(target: &Target, error: &vault::ConnectError) -> Failed {
        refused(&format!("target {}", target.name), error)
    }

    /// Adds the account to the registry: its keys, the rotations of its `users`, and its secrets at `places`.
    pub async fn connect(
        registry: &mut Registry,
        target: &Target,
        aws: &Aws,
        users: &[&Recipe],
        places: &[Place],
        clock: &clock::Shared,
    ) -> Result<(), Failed> {
        let settings = settings(target, aws, aws.credentials_file.as_ref());
        let made = aws::connect(&target.name, &settings, clock.clone()).await;
        registry.add(made.map_err(|error| wrong(target, &error))?);
        let made = aws::connect_fences(&target.name, &settings, clock.clone()).await;
        registry.add(made.map_err(|error| wrong(target, &error))?);
        if !users.is_empty() {
            let made = aws::connect_users(&target.name, &settings, clock.clone()).await;
            registry.add(made.map_err(|error| wrong(target, &error))?);
            users.iter().for_each(|recipe| registry.add_recipe((*recipe).clone()));
        }
        let of = |keeper| places.iter().filter(|place| place.keeper == keeper).cloned().collect::<Vec<Place>>();
        let (ours, its_own) = (of(Keeper::AwsSecret), of(Keeper::AwsRotated));
        if !ours.is_empty() {
            let made = aws::secrets::connect(&target.name, &settings, clock.clone(), &ours).await;
            registry.add_store(made.map_err(|error| wrong(target, &error))?);
        }
        if !its_own.is_empty() {
            let made = aws::rotated::connect(&target.name, &settings, clock.clone(), &its_own).await;
            registry.add_store(made.map_err(|error| wrong(target, &error))?);
        }
        registry.add_realm(connector::Realm {
            name: target.name.clone(),
            mode: target.mode,
            allowed_prefixes: aws.users.clone(),
            reducible: Vec::new(),
            targets: Vec::new(),
        });
        Ok(())
    }

    /// Adds who takes permissions from the account's users, by a login of its own.
    pub async fn reduces(
        registry: &mut Registry,
        target: &Target,
        aws: &Aws,
        login: &PathBuf,
        clock: &clock::Shared,
    ) -> Result<(), Failed> {
        let made = aws::scope::connect(&target.name, &settings(target, aws, Some(login)), clock.clone()).await;
        registry.add(made.map_err(|error| refused(&format!("reductions at {}", target.name), &error))?);
        Ok(())
    }

    /// An account, to look at all of its IAM by a login that can only look.
    pub async fn account(
        process: &Process,
        target: &Target,
        aws: &Aws,
        login: Option<&PathBuf>,
    ) -> Result<Account, Failed> {
        let opened = Account::open(&target.name, &settings(target, aws, login), process.clock.clone()).await;
        opened.map_err(|error| wrong(target, &error))
    }

    /// An account's secrets, to read them by the login of its inventory.
    pub async fn secrets(
        process: &Process,
        target: &Target,
        aws: &Aws,
        list: &KeyList,
    ) -> Result<aws::secrets::Secrets, Failed> {
        let settings = reader(target, aws, list);
        let made = aws::secrets::Secrets::open(&target.name, &settings, process.clock.clone(), &[]).await;
        made.map_err(|error| wrong(target, &error))
    }

    /// Lists the keys of the accounts `realms` (empty: of all) again and again, one process at a time for each.
    pub async fn start(process: &Process, realms: &[String]) -> Result<(), Failed> {
        let chosen = |name: &String| realms.is_empty() || realms.contains(name);
        for (target, aws) in process.config.accounts().filter(|(target, _)| chosen(&target.name)) {
            let (Some(list), Some(tenant)) = (&aws.inventory, &aws.tenant) else { continue };
            if aws.users.is_empty() {
                continue;
            }
            let account = Account::open(&target.name, &reader(target, aws, list), process.clock.clone()).await;
            let lists = Arc::new(Lists {
                name: target.name.clone(),
                account: account.map_err(|error| wrong(target, &error))?,
                intake: process.intake.clone(),
                tenant: tenant.clone(),
                every: Duration::from_millis(u64::try_from(list.every_ms).unwrap_or(300_000)),
            });
            process.lead_one("inventory", &target.name, move |cancel| {
                let lists = lists.clone();
                async move { lists.run(cancel).await }
            });
        }
        Ok(())
    }

    struct Lists {
        name: String,
        account: Account,
        intake: Intake,
        tenant: Tenant,
        every: Duration,
    }

    impl Lists {
        async fn run(&self, cancel: CancellationToken) {
            self.intake.metrics.inventory_read(&self.name, PART, 0);
            let rounds = async {
                loop {
                    self.round().await;
                    tokio::time::sleep(self.every).await;
                }
            };
            tokio::select! { () = rounds => {} () = cancel.cancelled() => {} }
            self.intake.metrics.inventory_left(&self.name, PART);
        }

        async fn round(&self) {
            let (sender, mut listed) = tokio::sync::mpsc::channel(CHUNK);
            let scanned = async {
                let scan = scan(&self.account, PACE, &sender).await;
                drop(sender);
                scan
            };
            let recorded = async {
                let mut some = Vec::with_capacity(CHUNK);
                while listed.recv_many(&mut some, CHUNK).await > 0 {
                    self.register(&std::mem::take(&mut some)).await;
                }
            };
            let (scan, ()) = tokio::join!(scanned, recorded);
            for fault in &scan.faults {
                tracing::warn!(
                    target = self.name,
                    path = fault.path,
                    note = fault.note,
                    "the inventory cannot list this"
                );
            }
            tracing::debug!(target = self.name, users = scan.secrets, "the access keys were listed");
            if !scan.partial {
                self.intake.metrics.inventory_read(&self.name, PART, self.intake.clock.wall_ms());
            }
        }

        /// What was registered before is a duplicate.
        async fn register(&self, some: &[Held]) {
            let now_ms = self.intake.clock.wall_ms();
            let listed = some.iter().flat_map(|held| &held.keys).filter_map(|key| self.event(key, now_ms));
            let over = some.iter().flat_map(|held| &held.over).filter_map(|key| self.over(key, now_ms));
            let events: Vec<Event> = listed.chain(over).collect();
            if let Err(error) = self.intake.notice(events).await {
                tracing::warn!(target = self.name, %error, "what the inventory read is read again");
            }
        }

        fn over(&self, key: &KeyName, now_ms: i64) -> Option<Event> {
            let credential = CredentialId::new(Kind::AwsAccessKey, &self.name, &key.id()).ok()?;
            Some(Event::sessions_over(self.tenant.clone(), credential, now_ms))
        }

        fn event(&self, key: &Listed, now_ms: i64) -> Option<Event> {
            let data = CredentialRegistered {
                credential: CredentialId::new(Kind::AwsAccessKey, &self.name, &key.name.id()).ok()?,
                // Its id says by what it is known: nobody here has its value.
                fingerprints: Vec::new(),
                version: None,
                current: true,
                issued_ms: key.created_ms,
                owner: None,
                environment: None,
            };
            Some(Event::registered(self.tenant.clone(), data, now_ms))
        }
    }
}

#[cfg(feature = "aws")]
pub use with::{account, connect, reduces, secrets, start};

/// The configuration has refused accounts already.
#[cfg(not(feature = "aws"))]
pub async fn connect(
    _: &mut Registry,
    _: &Target,
    _: &Aws,
    _: &[&Recipe],
    _: &[Place],
    _: &clock::Shared,
) -> Result<(), Failed> {
    Ok(())
}

/// The configuration has refused accounts already.
#[cfg(not(feature = "aws"))]
pub async fn reduces(
    _: &mut Registry,
    _: &Target,
    _: &Aws,
    _: &std::path::PathBuf,
    _: &clock::Shared,
) -> Result<(), Failed> {
    Ok(())
}

/// The configuration has refused accounts already.
#[cfg(not(feature = "aws"))]
pub async fn start(_: &Process, _: &[String]) -> Result<(), Failed> {
    Ok(())
}
