//! A picture of one reach, as SVG: who was asked about on the left, the shortest way to each target, and its zones on the right.
//! PURE. Text alone, without scripts or references: it can be opened anywhere.

use std::collections::{BTreeMap, BTreeSet};

use super::ask::{Hop, Reach};
use super::{Node, NodeKind};

/// Targets that are drawn; all are counted in the title.
const MOST: usize = 60;
const COLUMN: usize = 250;
const ROW: usize = 46;
const BOX: (usize, usize) = (190, 34);
const TOP: usize = 70;
const LEFT: usize = 20;
/// Characters of a name that fit into a box.
const FITS: usize = 27;
/// Fills of zones, in the order of their names, and again from the first.
const ZONES: [&str; 8] = ["#c0392b", "#2471a3", "#b7950b", "#1e8449", "#7d3c98", "#ca6f1e", "#117a65", "#5d6d7e"];

/// A node of the picture: all shortest ways together are a tree.
struct Drawn {
    node: Node,
    depth: usize,
    /// Twice the row, so that the middle between two rows is whole.
    row2: usize,
    /// From which, and how.
    from: Option<(usize, Hop)>,
}

/// The picture.
pub fn svg(reach: &Reach) -> String {
    let shown: Vec<_> = reach.opened.iter().take(MOST).collect();
    let depth = shown.iter().map(|one| one.way.len()).max().unwrap_or(0);
    let mut all = vec![Drawn { node: reach.node.clone(), depth: 0, row2: 0, from: None }];
    let mut known: BTreeMap<Node, usize> = BTreeMap::from([(reach.node.clone(), 0)]);
    let mut leaves = Vec::new();
    // A place in a zone of its own that leads on stands where it is passed.
    let passed: BTreeSet<&Node> =
        shown.iter().flat_map(|one| one.way.iter().rev().skip(1).map(|hop| &hop.to)).collect();
    // In the order of the tree, so that lines do not cross.
    let mut sorted = shown.clone();
    sorted.sort_by_key(|one| one.way.iter().map(|hop| hop.to.to_string()).collect::<Vec<_>>());
    for one in &sorted {
        let mut at = 0;
        for (no, hop) in one.way.iter().enumerate() {
            at = *known.entry(hop.to.clone()).or_insert_with(|| {
                let last = no + 1 == one.way.len() && !passed.contains(&hop.to);
                let depth = if last { depth } else { no + 1 };
                all.push(Drawn { node: hop.to.clone(), depth, row2: 0, from: Some((at, hop.clone())) });
                all.len() - 1
            });
        }
        leaves.push(at);
    }
    place(&mut all, &leaves);
    let rows = leaves.len().max(1);
    let (width, height) = (LEFT * 2 + (depth + 2) * COLUMN, TOP + rows * ROW + 20);
    let mut out = String::new();
    out.push_str(&format!("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
    ));
    let more = if reach.targets > shown.len() { format!(", {} of them drawn", shown.len()) } else { String::new() };
    let s = |count: usize| if count == 1 { "" } else { "s" };
    let (targets, zones) = (reach.targets, reach.zones.len());
    let title = format!("{} opens {targets} target{} in {zones} zone{}{more}", reach.node, s(targets), s(zones));
    out.push_str(&format!("<text x=\"{LEFT}\" y=\"28\" font-size=\"16\" fill=\"#1b2631\">{}</text>", escaped(&title)));
    let owners: Vec<String> = reach.owners.iter().map(|owner| owner.name.to_string()).collect();
    let owner = if owners.is_empty() { "nobody answers for it".to_owned() } else { owners.join(", ") };
    let under = format!("owner: {owner} · blast radius {}", reach.blast);
    out.push_str(&format!("<text x=\"{LEFT}\" y=\"48\" fill=\"#5d6d7e\">{}</text>", escaped(&under)));
    for drawn in &all {
        if let Some((from, hop)) = &drawn.from {
            line(&mut out, &all[*from], drawn, hop);
        }
    }
    for drawn in &all {
        bar(&mut out, drawn);
    }
    let colour: BTreeMap<&Node, &str> = reach.zones.keys().zip(ZONES.iter().cycle().copied()).collect();
    for one in &sorted {
        let Some(drawn) = known.get(&one.target).and_then(|at| all.get(*at)) else { continue };
        for (no, zone) in one.zones.iter().enumerate() {
            let (x, y) = corner(drawn);
            // Beside its target; above what leads on.
            let beside = (x + BOX.0 + 14 + no * 120, y + BOX.1 / 2);
            let (x, y) = if passed.contains(&one.target) { (x + 78 + no * 120, y - 9) } else { beside };
            let fill = colour.get(zone).unwrap_or(&ZONES[0]);
            out.push_str(&format!(
                "<rect x=\"{x}\" y=\"{}\" width=\"112\" height=\"20\" rx=\"10\" fill=\"{fill}\"/>\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#ffffff\">{}</text>",
                y - 10,
                x + 56,
                y + 4,
                escaped(&short(&zone.name, 15))
            ));
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Targets one below the other, and what leads to them in their middle.
fn place(all: &mut [Drawn], leaves: &[usize]) {
    let mut spans: Vec<Option<(usize, usize)>> = vec![None; all.len()];
    for (row, leaf) in leaves.iter().enumerate() {
        let mut at = Some(*leaf);
        while let Some(no) = at {
            let span = spans[no].get_or_insert((row, row));
            *span = (span.0.min(row), span.1.max(row));
            at = all[no].from.as_ref().map(|(from, _)| *from);
        }
    }
    for (drawn, span) in all.iter_mut().zip(spans) {
        drawn.row2 = span.map_or(0, |(first, last)| first + last);
    }
}

fn corner(drawn: &Drawn) -> (usize, usize) {
    (LEFT + drawn.depth * COLUMN, TOP + drawn.row2 * ROW / 2)
}

fn line(out: &mut String, from: &Drawn, to: &Drawn, hop: &Hop) {
    let ((x1, y1), (x2, y2)) = (corner(from), corner(to));
    let (x1, y1, y2) = (x1 + BOX.0, y1 + BOX.1 / 2, y2 + BOX.1 / 2);
    let bend = x1 + (COLUMN - BOX.0) / 2;
    let x = (x1 + COLUMN - BOX.0).min(x2);
    // The straight rest of a way whose target stands in the last column.
    let rest = if x2 > x { format!(" L{x2},{y2}") } else { String::new() };
    let mut tip = vec![hop.via.as_str().to_owned(), hop.scope.join(", "), hop.source.clone()];
    tip.retain(|part| !part.is_empty());
    out.push_str(&format!(
        "<path d=\"M{x1},{y1} C{bend},{y1} {bend},{y2} {x},{y2}{rest}\" fill=\"none\" stroke=\"#85929e\" \
         stroke-width=\"1.3\"><title>{}</title></path>",
        escaped(&tip.join(" · "))
    ));
    out.push_str(&format!(
        "<text x=\"{}\" y=\"{}\" font-size=\"10\" text-anchor=\"end\" fill=\"#5d6d7e\">{}</text>",
        x2 - 6,
        y2 - 4,
        hop.via.as_str()
    ));
}

fn bar(out: &mut String, drawn: &Drawn) {
    let (x, y) = corner(drawn);
    let (fill, stroke) = match drawn.node.kind {
        NodeKind::Target => ("#eaf2f8", "#1a5276"),
        NodeKind::Credential => ("#fdedec", "#922b21"),
        NodeKind::Path => ("#fef9e7", "#9a7d0a"),
        NodeKind::Policy => ("#f4ecf7", "#6c3483"),
        _ => ("#eafaf1", "#1d8348"),
    };
    let (width, height) = BOX;
    out.push_str(&format!(
        "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"4\" fill=\"{fill}\" \
         stroke=\"{stroke}\"/><text x=\"{}\" y=\"{}\" font-size=\"9\" fill=\"{stroke}\">{}</text>\
         <text x=\"{}\" y=\"{}\" fill=\"#1b2631\">{}</text></g>",
        escaped(&drawn.node.to_string()),
        x + 7,
        y + 12,
        drawn.node.kind.as_str(),
        x + 7,
        y + 27,
        escaped(&short(&drawn.node.name, FITS))
    ));
}

/// The end of a name tells more than its beginning.
fn short(name: &str, fits: usize) -> String {
    let count = name.chars().count();
    if count <= fits {
        name.to_owned()
    } else {
        format!("…{}", name.chars().skip(count - fits + 1).collect::<String>())
    }
}

/// Names come from systems and producers: nothing of them is markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML has no such characters, however written.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
