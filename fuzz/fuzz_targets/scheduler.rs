//! What the targets of all schedulers do.

use curfew::event::{Coordinates, Delivery, Format, Limits, Says, Type, understand};

pub fn read(format: Format, input: &[u8], headers: &[(&str, &str)]) {
    let header = |(name, value): &(&str, &str)| ((*name).to_owned(), Some((*value).to_owned().into()));
    let delivery = Delivery {
        at: Coordinates { cluster: "c".into(), topic: "t".into(), partition: 0, offset: 0 },
        tenant: "default".into(),
        format,
        broker_ms: 1_788_256_800_000,
        headers: headers.iter().map(header).collect(),
        payload: Some(input.to_vec().into()),
    };
    let limits = Limits::default();
    match (understand(&delivery, &limits), understand(&delivery, &limits)) {
        (Ok(Some(mut one)), Ok(Some(other))) => {
            assert_eq!((one.digest, &one.id, &one.source), (other.digest, &other.id, &other.source));
            assert!(!one.source.starts_with("/curfew"), "only Curfew speaks for itself");
            // Its run is of its own source: a topic that lets it speak lets it speak of this run.
            let says = Says { types: Type::INPUTS.into(), ..Says::default() };
            says.hear(&mut one).expect("a run of its own source");
        }
        (Ok(None), Ok(None)) => {}
        (Err(one), Err(other)) => assert_eq!(one, other),
        _ => panic!("one delivery is read in two ways"),
    }
}
