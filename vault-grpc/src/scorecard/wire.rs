//! Scorecards as messages.

use vault_core::Error;
use vault_core::time::Timestamp;
use vault_proto::v1;

use super::model::{Band, Detail, FORMAT, Kind, Line, Scorecard, Series, Verdict};
use crate::convert::{instant, timestamp};

fn verdict(verdict: Verdict) -> v1::ScorecardVerdict {
    match verdict {
        Verdict::Ok => v1::ScorecardVerdict::Ok,
        Verdict::Attention => v1::ScorecardVerdict::Attention,
        Verdict::Bad => v1::ScorecardVerdict::Bad,
        Verdict::NotMeasured => v1::ScorecardVerdict::NotMeasured,
    }
}

/// As a message.
pub fn to_wire(card: &Scorecard) -> v1::Scorecard {
    let at = |at: Option<Timestamp>| at.map(timestamp);
    v1::Scorecard {
        instance: card.instance.clone(),
        log: card.log.clone(),
        from_time: at(Timestamp::parse_date(&card.from)),
        until_time: at(Timestamp::parse_date(&card.until)),
        make_time: at(Timestamp::parse_rfc3339(&card.made)),
        lines: card.lines.iter().map(line).collect(),
        series: card.series.iter().map(series).collect(),
    }
}

fn line(line: &Line) -> v1::ScorecardLine {
    let details =
        line.details.iter().map(|part| v1::ScorecardDetail { name: part.name.clone(), value: part.value.clone() });
    v1::ScorecardLine {
        id: line.id.clone(),
        group: line.group.clone(),
        name: line.name.clone(),
        value: line.value.clone(),
        number: line.number,
        limit: line.limit.clone(),
        verdict: verdict(line.verdict).into(),
        how: line.how.clone(),
        details: details.collect(),
    }
}

fn series(series: &Series) -> v1::ScorecardSeries {
    let kind = match series.kind {
        Kind::Stacked => v1::ScorecardSeriesKind::Stacked,
        Kind::Grouped => v1::ScorecardSeriesKind::Grouped,
    };
    let band = |band: &Band| v1::ScorecardBand { name: band.name.clone(), values: band.values.clone() };
    v1::ScorecardSeries {
        id: series.id.clone(),
        title: series.title.clone(),
        unit: series.unit.clone(),
        kind: kind.into(),
        labels: series.labels.clone(),
        bands: series.bands.iter().map(band).collect(),
    }
}

/// From a message, as a gateway answered it.
///
/// # Errors
/// [`Error::Invalid`] naming the field that a gateway does not answer so.
pub fn from_wire(card: &v1::Scorecard) -> Result<Scorecard, Error> {
    let at = |field: &'static str, at: Option<&vault_proto::Timestamp>| {
        instant(field, at)?.ok_or_else(|| Error::invalid(field, "is missing from the answer"))
    };
    Ok(Scorecard {
        format: FORMAT.to_owned(),
        instance: card.instance.clone(),
        log: card.log.clone(),
        from: at("from_time", card.from_time.as_ref())?.date(),
        until: at("until_time", card.until_time.as_ref())?.date(),
        made: at("make_time", card.make_time.as_ref())?.rfc3339(),
        lines: card.lines.iter().map(line_of).collect::<Result<_, _>>()?,
        series: card.series.iter().map(series_of).collect::<Result<_, _>>()?,
    })
}

fn line_of(line: &v1::ScorecardLine) -> Result<Line, Error> {
    let verdict = match line.verdict() {
        v1::ScorecardVerdict::Ok => Verdict::Ok,
        v1::ScorecardVerdict::Attention => Verdict::Attention,
        v1::ScorecardVerdict::Bad => Verdict::Bad,
        v1::ScorecardVerdict::NotMeasured => Verdict::NotMeasured,
        v1::ScorecardVerdict::Unspecified => {
            return Err(Error::invalid("verdict", "is none that this program knows; it may be older than the gateway"));
        }
    };
    Ok(Line {
        id: line.id.clone(),
        group: line.group.clone(),
        name: line.name.clone(),
        value: line.value.clone(),
        number: line.number,
        limit: line.limit.clone(),
        verdict,
        how: line.how.clone(),
        details: line.details.iter().map(|part| Detail::new(&part.name, &part.value)).collect(),
    })
}

fn series_of(series: &v1::ScorecardSeries) -> Result<Series, Error> {
    let kind = match series.kind() {
        v1::ScorecardSeriesKind::Stacked => Kind::Stacked,
        v1::ScorecardSeriesKind::Grouped => Kind::Grouped,
        v1::ScorecardSeriesKind::Unspecified => {
            return Err(Error::invalid("kind", "is none that this program knows; it may be older than the gateway"));
        }
    };
    let bands: Vec<Band> =
        series.bands.iter().map(|band| Band { name: band.name.clone(), values: band.values.clone() }).collect();
    if bands.iter().any(|band| band.values.len() != series.labels.len()) {
        return Err(Error::invalid("values", "must be as many as the labels"));
    }
    Ok(Series {
        id: series.id.clone(),
        title: series.title.clone(),
        unit: series.unit.clone(),
        kind,
        labels: series.labels.clone(),
        bands,
    })
}
