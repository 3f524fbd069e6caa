//! Watches of the registry: as many as one user may have, and for as long as what they were asked with is good.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use jiff::Timestamp;
use registry::{
    Login, Registry,
    kube::{rbac, server::Frames, status::Status},
};
use tokio::time::{Interval, interval};

use super::{Api, kube_status};
use crate::{
    api::http_port::{Body, streamed},
    authorities::Authorities,
    limits::shares::Share,
};

/// How soon a watch is ended whose asker's token has.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

impl Api {
    /// A watch, if `asker` may have one more. It ends once what it was asked with is good no more.
    pub(super) fn watch(
        &self,
        asker: &rbac::Caller,
        login: Option<Login>,
        head: Response<()>,
        frames: Frames,
    ) -> Response<Body> {
        let Some(share) = self.watches.take(&asker.user) else {
            let message = format!("the user has {} watches, as many as one may have; end some", self.watches.most());
            return kube_status(&Status::too_many_requests(message));
        };
        let looks = interval(LOOK_AGAIN);
        let asked = (self.registry.clone(), self.authorities.clone(), login);
        let next = |(mut frames, share, mut looks, asked): (
            Frames,
            Share<String>,
            Interval,
            (Arc<Registry>, Arc<Authorities>, Option<Login>),
        )| async move {
            let frame = next_frame(&mut frames, &mut looks, &asked).await?;
            Some((frame, (frames, share, looks, asked)))
        };
        head.map(|()| streamed(stream::unfold((frames, share, looks, asked), next)))
    }
}

/// A watch's next frame; `None` also when the login that it was asked with is good no more. No frame goes to such a one: somebody
/// else may have its name by now, and rights of their own.
async fn next_frame(
    frames: &mut Frames,
    looks: &mut Interval,
    (registry, authorities, login): &(Arc<Registry>, Arc<Authorities>, Option<Login>),
) -> Option<Bytes> {
    let is_over = || {
        login.as_ref().is_some_and(|login| {
            let revoked = login.issuer().is_some_and(|issuer| authorities.is_revoked(issuer));
            revoked || registry.current(login, Timestamp::now()).is_none()
        })
    };
    let mut next = std::pin::pin!(frames.next());
    loop {
        tokio::select! {
            frame = &mut next => return frame.filter(|_| !is_over()),
            _ = looks.tick() => if is_over() {
                return None;
            }
        }
    }
}
