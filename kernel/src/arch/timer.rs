//! The generic timer: monotonic time, an alarm by the virtual timer, and the watchdog by the physical one (Arm ARM, D12).

use arm_sysregs::el0::accessors::{
    read_cntfrq_el0, read_cntvct_el0, write_cntp_ctl_el0, write_cntp_tval_el0, write_cntv_ctl_el0,
    write_cntv_cval_el0,
};
use arm_sysregs::el0::registers::{CntpCtlEl0, CntpTvalEl0, CntvCtlEl0, CntvCvalEl0};

use super::ticks;

/// Nanoseconds since the counter started; never goes back.
#[must_use]
pub fn now_ns() -> u64 {
    ticks::to_ns(read_cntvct_el0().bits(), frequency_hz())
}

/// Sets the alarm: from that time on, in the clock of [`now_ns`], the timer's interrupt is pending, until the alarm is
/// set to another time or to none.
pub fn set_alarm_ns(at_ns: Option<u64>) {
    match at_ns {
        Some(at_ns) => {
            write_cntv_cval_el0(CntvCvalEl0::from_bits_retain(ticks::at_ns(at_ns, frequency_hz())));
            write_cntv_ctl_el0(CntvCtlEl0::ENABLE);
        }
        None => write_cntv_ctl_el0(CntvCtlEl0::empty()),
    }
}

/// Makes the physical timer's interrupt pending after so long, or never. Xen emulates that timer: each call costs two traps,
/// and nothing while it runs.
pub fn set_watchdog_ns(after_ns: Option<u64>) {
    match after_ns {
        Some(after_ns) => {
            let ticks = ticks::at_ns(after_ns, frequency_hz());
            write_cntp_tval_el0(CntpTvalEl0::from_bits_retain(ticks));
            write_cntp_ctl_el0(CntpCtlEl0::ENABLE);
        }
        None => write_cntp_ctl_el0(CntpCtlEl0::empty()),
    }
}

fn frequency_hz() -> u64 {
    read_cntfrq_el0().bits().max(1)
}
