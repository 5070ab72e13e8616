//! What the control plane waits for; and news from inside of this domain, which it tells in xenstore.

use alloc::format;
use alloc::string::ToString;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll};

use super::openings::Opened;
use super::{Backend, Control, state, tolerate};
use crate::endpoint::addressing::Lease;
use crate::guest::DriverNews;
use crate::xen::store::{StoreError, WatchEvent};

/// Where our own address is shown, if we have one, in a directory of ours that others can read.
const ADDRESS: &str = "data/ip";

/// What to do about a driver that does not use grants.
const HOW_TO_USE_GRANTS: &str = "this device is shared by grants: give it grant_usage=0, or the guest a kernel with \
                                 CONFIG_XEN_VIRTIO=y";

/// What the control plane has to look at.
pub enum News {
    /// Xenstore changed.
    Store(WatchEvent),
    /// A guest's driver came up, or failed to.
    Driver(DriverNews),
    /// The volume of a disk is open, or cannot be opened.
    Volume(Opened),
    /// Our address is another.
    Address(Option<Lease>),
}

impl Control {
    /// What there is to look at next.
    pub(super) async fn next(&self) -> Result<News, StoreError> {
        let mut event = pin!(self.store.next_event());
        poll_fn(|context| {
            if let Poll::Ready(news) = self.guests.borrow_mut().poll_news(context) {
                return Poll::Ready(Ok(News::Driver(news)));
            }
            if let Poll::Ready(lease) = self.poll_address(context) {
                return Poll::Ready(Ok(News::Address(lease)));
            }
            if let Poll::Ready(opened) = self.openings.poll(context) {
                return Poll::Ready(Ok(News::Volume(opened)));
            }
            event.as_mut().poll(context).map_ok(News::Store)
        })
        .await
    }

    fn poll_address(&self, context: &Context<'_>) -> Poll<Option<Lease>> {
        self.network
            .endpoint
            .as_ref()
            .map_or(Poll::Pending, |endpoint| endpoint.borrow_mut().poll_news(context))
    }

    /// Writes what our address is, or removes what was written when we have none any more.
    pub(super) async fn tell_address(&self, lease: Option<Lease>) -> Result<(), StoreError> {
        match lease {
            Some(lease) => {
                let told = self.store.write(ADDRESS, &lease.address.address().to_string()).await;
                tolerate(&ADDRESS, told)
            }
            None => self.remove(ADDRESS).await,
        }
    }

    /// Writes what a driver's trouble is, or removes what was written once it has none.
    pub(super) async fn tell_trouble(&self, news: &DriverNews) -> Result<(), StoreError> {
        let backend = Backend::of(news.domain, news.device);
        let told = match news.trouble {
            Some(trouble) => {
                let sentence = format!("{trouble}: {HOW_TO_USE_GRANTS}");
                log::warn!("{backend}: {sentence}");
                self.answer(backend, state::INIT_WAIT, "error", &sentence).await.map(drop)
            }
            None => self.store.remove(&backend.node("error")).await,
        };
        tolerate(&backend, told)
    }
}
