//! The generic timer: monotonic time, and an alarm by the virtual timer (Arm ARM, D12).

use arm_sysregs::el0::accessors::{
    read_cntfrq_el0, read_cntvct_el0, write_cntv_ctl_el0, write_cntv_cval_el0,
};
use arm_sysregs::el0::registers::{CntvCtlEl0, CntvCvalEl0};

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

fn frequency_hz() -> u64 {
    read_cntfrq_el0().bits().max(1)
}
